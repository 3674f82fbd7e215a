package compare

import (
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// startPinned starts cmd on one CPU; cpu < 0 leaves it where the system wants it. A process inherits the
// affinity of the thread that forks it, so this thread takes it on for the moment.
func startPinned(cmd *exec.Cmd, cpu int) error {
	if cpu < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one [16]uint64
	if err := affinity(syscall.SYS_SCHED_GETAFFINITY, &old); err != nil {
		return err
	}
	one[cpu/64] = 1 << (cpu % 64)
	if err := affinity(syscall.SYS_SCHED_SETAFFINITY, &one); err != nil {
		return err
	}
	defer affinity(syscall.SYS_SCHED_SETAFFINITY, &old)
	return cmd.Start()
}

func affinity(call uintptr, mask *[16]uint64) error {
	_, _, e := syscall.RawSyscall(call, 0, unsafe.Sizeof(*mask), uintptr(unsafe.Pointer(mask)))
	if e != 0 {
		return e
	}
	return nil
}
