"""`r1rl select`: rejection sampling. Grade completions, keep the good ones, and say what each step removed."""
