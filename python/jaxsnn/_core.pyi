"""The compiled extension."""

version: str
compiler: str

def registrations() -> dict[str, object]: ...
def message(status: int, argument: int, element: int, value: float) -> str: ...
