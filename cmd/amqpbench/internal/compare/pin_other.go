//go:build !linux

package compare

import "os/exec"

// startPinned starts cmd; pinning is for Linux, and the pinned rows are not pinned elsewhere.
func startPinned(cmd *exec.Cmd, _ int) error { return cmd.Start() }
