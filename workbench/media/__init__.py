"""Pictures, video and text, in and out, on the V4 backbone."""
