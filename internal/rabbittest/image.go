package rabbittest

import (
	"cmp"
	"os"
	"strings"
)

// DefaultImage is what runs when RABBITMQ_IMAGE says nothing.
const DefaultImage = "rabbitmq:4"

// Image is the image that brokers are started from.
func Image() string { return cmp.Or(os.Getenv("RABBITMQ_IMAGE"), DefaultImage) }

// splitImage parts an image reference into what dockertest calls repository
// and tag. A colon is the tag's only behind the last slash: before it, it
// belongs to a registry's port. A digest stays with the repository and leaves
// the tag empty.
func splitImage(ref string) (repository, tag string) {
	if strings.Contains(ref, "@") {
		return ref, ""
	}
	i := strings.LastIndexByte(ref, ':')
	if i < 0 || i < strings.LastIndexByte(ref, '/') {
		return ref, "latest"
	}
	return ref[:i], ref[i+1:]
}
