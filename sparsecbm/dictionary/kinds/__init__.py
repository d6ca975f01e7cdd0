"""Kinds of sparse autoencoders, a file each: how units become a sparse code, and what the code is trained on."""
