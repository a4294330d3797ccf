"""What `bench/compare`, `bench/ablation` and `bench/soak` have in common. Python's standard library only."""
