module runsc
go 1.24
require gvisor.dev/gvisor v0.0.0-20250503011706-39ed1f5ac29c
