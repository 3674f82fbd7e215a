package bench

import (
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// meter takes the figures between start and stop. The costly readings are outside the clocks.
type meter struct {
	profile string
	file    *os.File

	wall      time.Time
	user, sys time.Duration
	mem       runtime.MemStats
	running   bool

	res Result
}

func cpu() (user, sys time.Duration) {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}

// start begins the measured part with an empty heap.
func (m *meter) start() error {
	runtime.GC()
	if m.profile != "" {
		var err error
		if m.file, err = os.Create(m.profile); err != nil {
			return err
		}
		runtime.SetCPUProfileRate(250)
		if err := pprof.StartCPUProfile(m.file); err != nil {
			return err
		}
	}
	runtime.ReadMemStats(&m.mem)
	m.running = true
	m.user, m.sys = cpu()
	m.wall = time.Now()
	return nil
}

// stop ends the measured part after n messages.
func (m *meter) stop(n int64) {
	wall := time.Since(m.wall)
	user, sys := cpu()
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	if m.file != nil {
		pprof.StopCPUProfile()
		m.file.Close()
	}
	m.running = false
	m.res.Messages = n
	m.res.WallNs = int64(wall)
	m.res.UserNs = int64(user - m.user)
	m.res.SysNs = int64(sys - m.sys)
	m.res.Mallocs = after.Mallocs - m.mem.Mallocs
	m.res.AllocBytes = after.TotalAlloc - m.mem.TotalAlloc
}

// footprint is what the process holds when all garbage is gone.
type footprint struct {
	bytes, rss float64
	goroutines int
}

func settle() footprint {
	for range 3 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{bytes: float64(m.HeapAlloc + m.StackInuse), rss: rss(), goroutines: runtime.NumGoroutine()}
}

// rss is the resident set in octets, 0 where the system does not say.
func rss() float64 {
	p, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(p))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize())
}
