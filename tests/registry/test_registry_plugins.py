"""Layers of other distributions: found through metadata, loaded one by one."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import registry

FINE = '''
"""A module of a plugin."""

class ScanFoo:
    """Foo over time."""

    def __init__(self, features, scale=1.0):
        self.features = features
'''


def test_plugins_are_listed_without_being_imported(install):
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    assert "acme.scan_foo" in registry.names()
    assert registry.names("acme.*") == ["acme.scan_foo"]
    assert registry.names("acme.*", family="recurrent") == []
    assert "acme_fine" not in sys.modules
    assert registry.build("acme.scan_foo", features=3).features == 3
    assert "acme_fine" in sys.modules


def test_the_spec_of_a_plugin(install):
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo [gpu]\n", acme_fine=FINE)
    spec = registry.spec("acme.scan_foo")
    assert spec.factory is sys.modules["acme_fine"].ScanFoo
    assert spec.where == "entry point of acme-layers 1.2"
    assert spec.summary == "Foo over time."
    assert dict(spec.defaults) == {"scale": 1.0}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("acme_raises:ScanFoo", "ZeroDivisionError: division by zero"),
        ("acme_exits:ScanFoo", "SystemExit: 3"),
        ("acme_needs:ScanFoo", "No module named 'acme_cudnn'"),
        ("acme_syntax:ScanFoo", "SyntaxError"),
        ("acme_missing:ScanFoo", "No module named 'acme_missing'"),
        ("acme_fine:ScanBar", "has no attribute 'ScanBar'"),
        ("acme_fine", "is of type module, expected a callable"),
        ("acme fine !", "ValueError: invalid format"),
    ],
)
def test_a_broken_plugin_harms_only_its_own_name(install, target, reason):
    install(
        "acme-layers",
        f"acme.scan_foo = acme_fine:ScanFoo\nacme.broken = {target}\n",
        acme_fine=FINE,
        acme_raises="1 / 0",
        acme_exits="raise SystemExit(3)",
        acme_needs="import acme_cudnn",
        acme_syntax="class ScanFoo(",
    )
    assert registry.names("acme.*") == ["acme.broken", "acme.scan_foo"]
    for look in (registry.build, registry.spec, registry.describe):
        with pytest.raises(ImportError) as caught:
            look("acme.broken")
        assert isinstance(caught.value, registry.LoadError)
        assert "cannot load 'acme.broken' (entry point of acme-layers 1.2)" in str(caught.value)
        assert reason in str(caught.value)
    assert registry.build("acme.scan_foo", features=3).features == 3


def test_a_damaged_distribution_harms_no_other(install):
    install("acme-damaged", "acme.lost\n")
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    assert registry.names("acme.*") == ["acme.scan_foo"]
    with pytest.raises(registry.UnknownNameError, match=r"could not be read: acme-damaged \("):
        registry.build("acme.lost")


def test_a_distribution_without_a_name_is_reported(install):
    site = install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    (site / "acme_layers-1.2.dist-info" / "METADATA").unlink()
    with pytest.raises(
        registry.UnknownNameError, match="could not be read: a distribution without"
    ):
        registry.build("acme.scan_foo")


def test_entry_points_of_other_groups_are_not_ours(install):
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", group="[zoo.modules.other]\n")
    assert registry.names("acme.*") == []


def test_plugins_that_are_installed_later_are_found(install):
    with pytest.raises(registry.UnknownNameError):
        registry.build("acme.scan_foo", features=3)
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    assert registry.build("acme.scan_foo", features=3).features == 3


def test_a_plugin_installed_into_a_folder_that_was_seen_before_is_found(install):
    site = install("acme-other", "acme.other = acme_other:ScanFoo\n", acme_other=FINE)
    assert registry.build("acme.other", features=2).features == 2
    folder = site / "acme_layers-1.2.dist-info"
    stamp = site.stat()
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-layers\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text("[zoo.modules]\nacme.scan_foo = acme_fine:ScanFoo\n")
    (site / "acme_fine.py").write_text(FINE)
    # File systems with coarse time stamps show no change of the folder at all.
    os.utime(site, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert registry.build("acme.scan_foo", features=3).features == 3


def test_removed_plugins_are_no_longer_listed(install, monkeypatch):
    site = install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    assert registry.names("acme.*") == ["acme.scan_foo"]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(site)])
    assert registry.names("acme.*") == []
    with pytest.raises(registry.UnknownNameError):
        registry.build("acme.scan_foo", features=3)


def test_metadata_is_read_once_for_many_builds(install, monkeypatch):
    from registry import plugins

    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    registry.build("acme.scan_foo", features=3)
    monkeypatch.setattr(plugins, "scan", lambda: pytest.fail("scanned again"))
    assert registry.build("acme.scan_foo", features=3).features == 3


def test_a_plugin_never_shadows_a_built_in(install):
    install(
        "acme-layers",
        "scan_gru = acme_fine:ScanFoo\nlstm = acme_fine:ScanFoo\n",
        acme_fine=FINE,
    )
    # Its own names, so that the test does not depend on the layers themselves.
    registry.register("scan_gru", lambda features: ("ours", features), override=True)
    registry.register("scan_lstm", lambda features: ("ours", features), override=True)
    registry.register("acme.x", lambda: 0)
    assert registry.names("scan_gru") == ["scan_gru"]
    assert registry.names("lstm") == []
    for name in ("scan_gru", "gru", "lstm"):
        assert registry.build(name, features=3) == ("ours", 3)
    assert "acme_fine" not in sys.modules
    for name, claimed in (("scan_gru", "scan_gru"), ("scan_lstm", "lstm")):
        text = registry.describe(name)
        assert f"the entry point of acme-layers 1.2 claims {claimed!r}" in text
    assert "ignored" not in registry.describe("acme.x")


def test_a_plugin_without_a_dot_is_refused_by_name(install):
    install("acme-layers", "scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    assert "scan_foo" not in registry.names()
    for look in (registry.build, registry.spec, registry.describe):
        with pytest.raises(registry.LoadError, match=r"acme-layers 1.2\).*'acme.scan_foo'"):
            look("scan_foo")
    assert "acme_fine" not in sys.modules


def test_two_distributions_with_one_name_are_both_named(install):
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    install("acme-fork", "acme.scan_foo = acme_fork:ScanFoo\n", version="3")
    with pytest.raises(registry.LoadError, match=r"acme-fork 3 and .*acme-layers 1\.2"):
        registry.build("acme.scan_foo", features=3)


def test_of_two_copies_of_a_distribution_the_first_on_the_path_counts(install):
    install("acme-layers", "acme.scan_foo = acme_old:Old\nacme.old = acme_old:Old\n", version="1.0")
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", version="2.0", acme_fine=FINE)
    assert registry.names("acme.*") == ["acme.scan_foo"]
    assert registry.spec("acme.scan_foo").where == "entry point of acme-layers 2.0"


def test_a_copy_hidden_by_one_without_plugins_does_not_count(install):
    install("acme-layers", "acme.scan_foo = acme_old:Old\n", version="1.0")
    install("acme-layers", "acme = acme_fine:main\n", version="2.0", group="[console_scripts]\n")
    assert registry.names("acme.*") == []


def test_a_plugin_may_register_itself_with_more_to_say(install):
    source = f"{FINE}\nimport registry\nregistry.register('acme.scan_foo', ScanFoo, family='foos')"
    install("acme-layers", "acme.scan_foo = acme_self:ScanFoo\n", acme_self=source)
    spec = registry.spec("acme.scan_foo")
    assert spec.family == "foos"
    assert spec.where.startswith("acme_self:")
    assert registry.names("acme.*", family="foos") == ["acme.scan_foo"]
    assert "ignored" not in registry.describe("acme.scan_foo")


def test_names_of_this_process_go_before_plugins(install):
    install("acme-layers", "acme.scan_foo = acme_fine:ScanFoo\n", acme_fine=FINE)
    assert registry.names("acme.*") == ["acme.scan_foo"]
    with registry.temporary("acme.scan_foo", lambda features: features, family="fakes"):
        assert registry.build("acme.scan_foo", features=3) == 3
        assert registry.names("acme.*", family="fakes") == ["acme.scan_foo"]
    assert registry.build("acme.scan_foo", features=3).features == 3
    with pytest.raises(registry.UnknownNameError):
        registry.unregister("acme.scan_foo")


def test_many_threads_build_a_plugin_while_others_register(install):
    slow = "import time\ntime.sleep(0.2)\nimport registry\nregistry.register('acme.side', len)\n"
    install("acme-layers", "acme.scan_foo = acme_slow:ScanFoo\n", acme_slow=slow + FINE)
    start = threading.Barrier(12)

    def work(worker):
        start.wait()
        if worker % 2:
            return registry.build("acme.scan_foo", features=worker).features
        for turn in range(20):
            registry.register(f"acme.thread_{worker}_{turn}", len)
            time.sleep(0.01)
        return worker

    with ThreadPoolExecutor(12) as pool:
        assert [*pool.map(work, range(12), timeout=60)] == [*range(12)]
    assert "acme.side" in registry.names()


def test_registering_does_not_wait_for_a_plugin_that_is_being_imported(install):
    entered, leave = threading.Event(), threading.Event()
    sys.modules["acme_gate"] = type("Gate", (), {"entered": entered, "leave": leave})
    source = f"import acme_gate\nacme_gate.entered.set()\nacme_gate.leave.wait(30)\n{FINE}"
    install("acme-layers", "acme.scan_foo = acme_waits:ScanFoo\n", acme_waits=source)
    try:
        with ThreadPoolExecutor(2) as pool:
            built = pool.submit(registry.build, "acme.scan_foo", features=3)
            assert entered.wait(30)
            pool.submit(registry.register, "acme.meanwhile", len).result(timeout=20)
            leave.set()
            assert built.result(timeout=20).features == 3
    finally:
        leave.set()
        del sys.modules["acme_gate"]
