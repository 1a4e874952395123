"""Paying for work: prices, what a task is charged, channels and vouchers."""
