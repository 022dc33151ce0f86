"""Many runs of the pipeline's parts: sweeps, the leaderboard, the search for places."""
