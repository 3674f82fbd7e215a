package compare

import (
	"encoding/json"
	"os"
	"sort"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/bench"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/hist"
)

// Stat is one figure over the rounds.
type Stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Spread is the distance from best to worst as a fraction of the median.
func (s Stat) Spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / s.Median
}

func stat(v []float64) Stat {
	if len(v) == 0 {
		return Stat{}
	}
	sort.Float64s(v)
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	return Stat{Median: m, Min: v[0], Max: v[len(v)-1]}
}

// Summary is what a peer reached in a case.
type Summary struct {
	Peer    string `json:"peer"`
	Version string `json:"version"`
	Error   string `json:"error,omitempty"`
	Unfit   bool   `json:"unfit,omitempty"`
	Rounds  int    `json:"rounds"`

	CPU            Stat       `json:"cpu_ns"` // per message: user and system
	System         Stat       `json:"system_ns"`
	Wall           Stat       `json:"wall_ns"`
	Rate           Stat       `json:"rate"`
	Allocs         Stat       `json:"allocs"`
	Bytes          Stat       `json:"bytes"`
	NoAllocs       bool       `json:"no_allocs,omitempty"`
	IdleBytes      Stat       `json:"idle_bytes"`
	IdleRSS        Stat       `json:"idle_rss"`
	IdleGoroutines Stat       `json:"idle_goroutines"`
	Latency        *hist.Hist `json:"latency,omitempty"` // of all rounds
}

// Usable says whether there are figures.
func (s *Summary) Usable() bool { return s != nil && s.Rounds > 0 }

// summarize joins a peer's rounds. Rounds that failed are left out, and the last failure is kept.
func summarize(name string, rounds []*bench.Result) *Summary {
	s := &Summary{Peer: name}
	col := map[*Stat][]float64{}
	for _, r := range rounds {
		s.Version = r.Version
		if r.Error != "" {
			s.Error, s.Unfit = r.Error, r.Unfit
			continue
		}
		s.Rounds++
		s.NoAllocs = r.NoAllocs
		for at, v := range map[*Stat]float64{&s.CPU: r.CPU(), &s.System: float64(r.SysNs) / float64(max(r.Messages, 1)),
			&s.Wall: r.Wall(), &s.Rate: r.Rate(), &s.Allocs: r.Allocs(), &s.Bytes: r.Bytes(), &s.IdleBytes: r.IdleBytes,
			&s.IdleRSS: r.IdleRSS, &s.IdleGoroutines: r.IdleGoroutines} {
			col[at] = append(col[at], v)
		}
		if r.Latency.Count() > 0 {
			if s.Latency == nil {
				s.Latency = new(hist.Hist)
			}
			s.Latency.Merge(r.Latency)
		}
	}
	for at, v := range col {
		*at = stat(v)
	}
	return s
}

// Entry is a case and what its peers reached.
type Entry struct {
	Case  Case       `json:"case"`
	Peers []*Summary `json:"peers"`
}

// Find is a peer's summary, or nil.
func (e *Entry) Find(peer string) *Summary {
	for _, s := range e.Peers {
		if s.Peer == peer {
			return s
		}
	}
	return nil
}

// Meta says where and how the figures came about.
type Meta struct {
	When     string   `json:"when"`
	Command  string   `json:"command"`
	Target   string   `json:"target"`
	Broker   bool     `json:"broker"` // a real broker, not the null server
	Go       string   `json:"go"`
	System   string   `json:"system"`
	CPU      string   `json:"cpu"`
	CPUs     int      `json:"cpus"`
	Commit   string   `json:"commit,omitempty"`
	Peers    []string `json:"peers"`
	Rounds   int      `json:"rounds"`
	Duration string   `json:"duration"` // of one measured run
	Notes    []string `json:"notes,omitempty"`
}

// Report is all of a run.
type Report struct {
	Meta    Meta    `json:"meta"`
	Entries []Entry `json:"entries"`
}

// find is a peer's usable summary in a case; with no peer named, any.
func (r *Report) find(id, peer string) *Summary {
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Case.ID != id {
			continue
		}
		for _, s := range e.Peers {
			if (peer == "" || s.Peer == peer) && s.Usable() {
				return s
			}
		}
	}
	return nil
}

// Load reads a report that Save wrote.
func Load(path string) (*Report, error) {
	p, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	return r, json.Unmarshal(p, r)
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error {
	p, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(p, '\n'), 0o644)
}
