//go:build unix

package install

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a cancelled context end the compiler's own children too.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
