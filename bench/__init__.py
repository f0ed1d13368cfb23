"""Measurements that anyone can repeat: ratios within one run, medians with their spread."""
