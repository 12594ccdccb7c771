// Runs the conformance cases through cgo: conformance [WRONG-CASES], with the name of what
// conformance/make-rootfs made in MSB_TEST_ROOTFS.
//
// Every case waits in a goroutine on its handles' descriptors, never in a thread.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// sandboxes makes one sandbox per profile, when it is asked for.
type sandboxes struct {
	sync.Mutex
	profiles map[string]struct {
		Env                  [][2]string
		Workdir, Shell, User string
	}
	made map[string]*sandbox
}

func (s *sandboxes) get(name string) (*sandbox, error) {
	s.Lock()
	defer s.Unlock()
	if sb := s.made[name]; sb != nil {
		return sb, nil
	}
	profile, known := s.profiles[name]
	if !known {
		return nil, fmt.Errorf("no sandbox %q", name)
	}
	o := sandboxOptions{name: "go-" + name, image: os.Getenv("MSB_TEST_ROOTFS"),
		workdir: profile.Workdir, shell: profile.Shell, user: profile.User}
	for _, pair := range profile.Env {
		o.env = append(o.env, []byte(pair[0]+"="+pair[1]))
	}
	sb, err := createSandbox(o)
	if err == nil {
		s.made[name] = sb
	}
	return sb, err
}

var next atomic.Int64

func (s *sandboxes) problem(c *testCase) string {
	sb, err := s.get(c.Sandbox)
	if err != nil {
		return err.Error()
	}
	for i := 0; i < c.Times; i++ {
		if problem := once(c, sb, fmt.Sprintf("/tmp/case-%d", next.Add(1))); problem != "" {
			return problem
		}
	}
	return ""
}

// runAll gives the problem of each case. Several run at a time.
func (s *sandboxes) runAll(cases []*testCase) []string {
	problems := make([]string, len(cases))
	var at atomic.Int64
	var all sync.WaitGroup
	for worker := 0; worker < 4; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := at.Add(1) - 1; int(i) < len(cases); i = at.Add(1) - 1 {
				problems[i] = s.problem(cases[i])
			}
		}()
	}
	all.Wait()
	return problems
}

// choose gives the cases to run, and how many are not, by reason.
func choose(cases []*testCase, files []string) (chosen []*testCase, skipped map[string]int) {
	skipped = map[string]int{}
	for i, c := range cases {
		about := append(append([]string{files[i], c.Name}, c.Promises...), c.Refs...)
		asked := false
		for _, text := range about {
			asked = asked || strings.Contains(text, os.Getenv("MSB_CONFORMANCE"))
		}
		switch {
		case !asked:
			skipped["not asked for"]++
		case contains(c.Requires, "root") && os.Geteuid() != 0:
			skipped["needs root"]++
		case inexpressible(c) != "":
			skipped[inexpressible(c)]++
		default:
			chosen = append(chosen, c)
		}
	}
	return chosen, skipped
}

func conform(s *sandboxes) (failed int, err error) {
	cases, files, err := loadCases()
	if err != nil {
		return 0, err
	}
	chosen, skipped := choose(cases, files)
	for i, problem := range s.runAll(chosen) {
		if problem != "" {
			failed++
			fmt.Fprintf(os.Stderr, "%s: %s\n", chosen[i].Name, problem)
		}
	}
	parts := []string{}
	for why, count := range skipped {
		parts = append(parts, fmt.Sprintf("%d skipped (%s)", count, why))
	}
	sort.Sort(sort.Reverse(sort.StringSlice(parts)))
	if failed > 0 {
		parts = append([]string{fmt.Sprintf("%d FAILED", failed)}, parts...)
	}
	parts = append([]string{fmt.Sprintf("%d of %d cases", len(chosen)-failed, len(cases))}, parts...)
	fmt.Println(strings.Join(parts, ", "))
	return failed, nil
}

// checkRunner shows that the runner notices what is wrong.
func checkRunner(s *sandboxes, path string) (failed int, err error) {
	wrong, err := loadWrong(path)
	if err != nil {
		return 0, err
	}
	for i, problem := range s.runAll(wrong) {
		if problem == "" {
			failed++
			fmt.Fprintf(os.Stderr, "not noticed: %s\n", wrong[i].Name)
		}
	}
	fmt.Printf("%d of %d wrong expectations noticed\n", len(wrong)-failed, len(wrong))
	return failed, nil
}

func main() {
	s := &sandboxes{made: map[string]*sandbox{}}
	failed := 0
	err := read(filepath.Join(folder(), "profiles.json"), &s.profiles)
	switch {
	case err != nil:
	case len(os.Args) > 1:
		failed, err = checkRunner(s, os.Args[1])
	default:
		failed, err = conform(s)
	}
	for name, sb := range s.made {
		if ended := sb.end("go-" + name); err == nil {
			err = ended
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}
