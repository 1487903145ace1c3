"""Many runs: what is checked and said before, who does which, and what is shown meanwhile."""
