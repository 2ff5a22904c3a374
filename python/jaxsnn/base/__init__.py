"""What both simulators share: array types and the pytrees of spikes, parameters and states."""
