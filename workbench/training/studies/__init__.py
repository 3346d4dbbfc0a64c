"""Pre-training in small, part by part: recorded studies of one tiny V4 and what each change does to it."""
