"""The compiled extension."""

import numpy as np

version: str
compiler: str

def registrations() -> dict[str, object]: ...
def message(status: int, argument: int, element: int, value: float) -> str: ...
def host_loop(
    params: tuple[np.ndarray, ...],
    weights: np.ndarray,
    v: np.ndarray,
    recurrent: np.ndarray,
    recurrent_delay: float,
    input_time: np.ndarray,
    input_index: np.ndarray,
    t_max: float,
    time: np.ndarray,
    index: np.ndarray,
    status: np.ndarray,
) -> None: ...
def clocked_loop(
    step: tuple[np.ndarray, ...],
    threshold: np.ndarray,
    reset: np.ndarray,
    n_silent: np.ndarray,
    n_clamped: np.ndarray,
    excitatory: np.ndarray,
    inhibitory: np.ndarray,
    i_max: float,
    n_steps: int,
    arrival_step: np.ndarray,
    arrival_channel: np.ndarray,
    fired_step: np.ndarray,
    fired_neuron: np.ndarray,
    count: np.ndarray,
) -> None: ...
