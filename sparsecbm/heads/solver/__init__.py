"""Softmax regression with elastic-net penalties, and on given supports."""
