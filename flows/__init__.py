"""The order of work, and nothing else: each flow says what comes after what, and what happens when a step says no."""
