"""The contract tests and the lab's scenarios on several kernels, and the table of docs/kernels.md."""
