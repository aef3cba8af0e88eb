"""Networks as the engine sees them: what they predict, what they are told, what holds in a call."""
