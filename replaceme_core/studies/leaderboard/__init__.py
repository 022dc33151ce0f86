"""The leaderboard: the field's methods and ours at equal budgets."""
