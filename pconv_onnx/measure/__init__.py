"""Verification, evaluation, statistics and benchmarks: is a network right, is it good, and what does it cost?"""
