"""The registry under many threads at once."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import registry


def scan_sum(features, *, scale=1.0):
    return ("sum", features, scale)


def scan_max(features):
    return ("max", features)


def test_many_threads_register_build_and_forget():
    start, built_ins = threading.Barrier(16), {*registry.names()}

    def work(worker):
        start.wait()
        for turn in range(40):
            name = f"acme.layer_{worker}_{turn}"
            registry.register(name, partial(scan_sum, scale=worker), aliases=[f"{name}_alias"])
            assert registry.build(f"{name}_alias", features=turn) == ("sum", turn, worker)
            with registry.temporary(f"{name}_short", scan_max):
                assert registry.build(f"{name}_short", features=turn) == ("max", turn)
            if turn % 2:
                registry.unregister(name)
            if turn % 10 == 0:
                assert set(registry.names()) >= built_ins

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(work, worker) for worker in range(16)]:
            future.result(timeout=60)
    assert len(registry.names("acme.*")) == 16 * 20


def test_only_one_of_many_threads_gets_a_name():
    start = threading.Barrier(16)

    def work(worker):
        start.wait()
        try:
            registry.register("acme.wanted", partial(scan_sum, scale=worker))
        except registry.DuplicateNameError:
            return None
        return worker

    with ThreadPoolExecutor(16) as pool:
        (winner,) = [worker for worker in pool.map(work, range(16)) if worker is not None]
    assert registry.build("acme.wanted", features=1) == ("sum", 1, winner)


def test_no_lock_is_held_while_a_factory_runs():
    def factory():
        done = threading.Event()
        other = threading.Thread(
            target=lambda: (registry.register("acme.inner", scan_sum), done.set()), daemon=True
        )
        other.start()
        return done.wait(timeout=30)

    registry.register("acme.outer", factory)
    assert registry.build("acme.outer")


AT_ONCE = """
import sys, threading, registry

names = ["scan_gru", "scan_lstm", "scan_lru", "scan_conv_gru", "stack", "scan_s5", "scan_slstm"]
start, failed = threading.Barrier(len(names)), []

def load(name):
    start.wait()
    try:
        registry.spec(name)
    except Exception as error:
        failed.append(f"{name}: {error}")

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=load, args=(name,)) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("; ".join(failed) or 0)
"""


def test_layers_are_loaded_by_many_threads_at_once():
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
