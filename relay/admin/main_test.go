package admin_test

import (
	"testing"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
