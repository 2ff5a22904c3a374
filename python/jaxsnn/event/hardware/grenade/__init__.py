"""The bridge to the vendor's packages, which are imported when the backend is opened."""

from jaxsnn.event.hardware.grenade.backend import GrenadeBackend

__all__ = ["GrenadeBackend"]
