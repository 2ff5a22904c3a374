"""Programs that train networks in time steps; run them with ``python -m``."""
