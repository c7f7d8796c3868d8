package torch

import "sync"

// Scope closes many tensors together. The zero value works; all methods may be called from many
// goroutines.
type Scope struct {
	mu      sync.Mutex
	tensors []*Tensor
}

// Track adds every tensor inside the values to the scope.
func (s *Scope) Track(values ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		Tensors(v, func(t *Tensor) { s.tensors = append(s.tensors, t) })
	}
}

// Keep takes a tensor out of the scope, so that it outlives it, and gives it back.
func (s *Scope) Keep(t *Tensor) *Tensor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range s.tensors {
		if x == t {
			s.tensors = append(s.tensors[:i], s.tensors[i+1:]...)
			break
		}
	}
	return t
}

// Close closes what the scope tracks, last first. The scope can be used again.
func (s *Scope) Close() error {
	s.mu.Lock()
	tensors := s.tensors
	s.tensors = nil
	s.mu.Unlock()
	for i := len(tensors) - 1; i >= 0; i-- {
		tensors[i].Close()
	}
	return nil
}

// Own tracks v in the scope and passes it on: x, err := torch.Own(&scope)(torch.Empty(...)).
func Own(s *Scope) func(t *Tensor, err error) (*Tensor, error) {
	return func(t *Tensor, err error) (*Tensor, error) {
		if err == nil {
			s.Track(t)
		}
		return t, err
	}
}
