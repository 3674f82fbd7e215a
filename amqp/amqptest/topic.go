package amqptest

import "strings"

// topicRouter is a trie over the words of the binding keys. "*" stands for
// one word and "#" for any number of them, none included.
type topicRouter struct {
	root topicNode
	hits map[*binding]struct{} // a binding is hit once, however many ways it matches
}

type topicNode struct {
	children map[string]*topicNode
	bindings []*binding
}

// topicWords splits a key. The empty key has no words: "*" does not match it,
// though it does match the empty word after the dot of "a.".
func topicWords(key string) []string {
	if key == "" {
		return nil
	}
	return strings.Split(key, ".")
}

func newTopicRouter() *topicRouter { return &topicRouter{hits: map[*binding]struct{}{}} }

func (r *topicRouter) add(b *binding) {
	n := &r.root
	for _, word := range topicWords(b.key) {
		c := n.children[word]
		if c == nil {
			if n.children == nil {
				n.children = map[string]*topicNode{}
			}
			c = &topicNode{}
			n.children[word] = c
		}
		n = c
	}
	n.bindings = append(n.bindings, b)
}

func (r *topicRouter) remove(b *binding) { r.root.remove(b, topicWords(b.key)) }

func (n *topicNode) remove(b *binding, words []string) {
	if len(words) == 0 {
		n.bindings = deleteBinding(n.bindings, b)
		return
	}
	c := n.children[words[0]]
	if c == nil {
		return
	}
	c.remove(b, words[1:])
	if len(c.bindings) == 0 && len(c.children) == 0 {
		delete(n.children, words[0])
	}
}

func (r *topicRouter) route(_ *message, key string, hit func(*binding)) {
	clear(r.hits)
	// The dead ends of a walk are remembered: with several # in a row a naive
	// walk takes exponential time, which a hostile client would use.
	r.root.match(topicWords(key), 0, map[topicStep]struct{}{}, func(b *binding) {
		if _, again := r.hits[b]; !again {
			r.hits[b] = struct{}{}
			hit(b)
		}
	})
}

type topicStep struct {
	node *topicNode
	at   int
}

func (n *topicNode) match(words []string, at int, done map[topicStep]struct{}, hit func(*binding)) {
	if n.children != nil {
		step := topicStep{n, at}
		if _, ok := done[step]; ok {
			return
		}
		done[step] = struct{}{}
		if many := n.children["#"]; many != nil {
			for i := at; i <= len(words); i++ {
				many.match(words, i, done, hit)
			}
		}
		if at < len(words) {
			if one := n.children["*"]; one != nil {
				one.match(words, at+1, done, hit)
			}
			// A key may hold the wildcards as words; they were followed above.
			if w := words[at]; w != "#" && w != "*" {
				if same := n.children[w]; same != nil {
					same.match(words, at+1, done, hit)
				}
			}
		}
	}
	if at == len(words) {
		for _, b := range n.bindings {
			hit(b)
		}
	}
}
