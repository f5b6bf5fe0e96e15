"""Which samples of a batch each element of a tensor depends on, and how inputs and outputs hold the samples."""
