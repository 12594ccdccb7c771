module testee

go 1.19

require github.com/superradcompany/microsandbox/sdk/go v0.0.0

replace github.com/superradcompany/microsandbox/sdk/go => ../../../sdk/go
