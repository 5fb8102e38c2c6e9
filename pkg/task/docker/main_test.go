package docker

import (
	"os"
	"testing"

	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }
