"""A slow and plain float64 simulator of LIF networks, to check the package against.

It shares neither code nor method with the package: voltages come from the two-exponential solution
of every textbook, crossings from bracketing, derivatives from tangents that are carried forward in
time. Nothing here is fast, and nothing here is meant to be.

* ``network``: what is simulated,
* ``kernel``: the response of the membrane to a decaying current,
* ``simulate``: spikes and final state,
* ``parameters``: the numbers of a network as one vector,
* ``gradient``: derivatives of spike times, final state and losses,
* ``golden``: the reference files as networks.
"""
