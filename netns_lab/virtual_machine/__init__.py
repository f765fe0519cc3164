"""Labs on another kernel: a virtual machine boots Debian's kernel, and viacheck builds and judges the labs in it."""
