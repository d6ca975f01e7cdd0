"""What every room stands on: errors, files, stored models, checkpoints, untrusted input, progress, devices."""
