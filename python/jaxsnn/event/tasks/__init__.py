"""Programs that train networks on standard tasks; run them with ``python -m``."""
