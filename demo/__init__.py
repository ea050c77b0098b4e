"""The main job run for real on a made-up wholesaler, with simulated customers."""
