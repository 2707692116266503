"""The platform that what is traced now will run on, as far as JAX knows it by then."""

import jax


def platform() -> str:
    """That of ``jax.default_device`` where one is set, or else of the default backend.

    Example:
      >>> with jax.default_device(jax.devices("cpu")[0]):
      ...     platform()
      'cpu'
    """
    default = getattr(jax.config, "jax_default_device", None)
    if default is None:
        return jax.default_backend()
    name = default if isinstance(default, str) else default.platform
    return "gpu" if name in ("cuda", "rocm") else name
