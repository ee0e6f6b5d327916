package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// functions are what templates may call. Pointers to values are followed; nil is shown as a dash.
func functions(prefix string) template.FuncMap {
	return template.FuncMap{
		"url":      func(path string, parts ...any) string { return prefix + join(path, parts) },
		"static":   func(name string) string { return prefix + staticPath(name) },
		"text":     text,
		"ago":      func(t any) template.HTML { return ago(t, time.Now()) },
		"bytes":    sizeOf,
		"num":      number,
		"ms":       milliseconds,
		"pct":      percent,
		"duration": duration,
		"json":     pretty,
		"short":    short,
		"stamp":    stamp,
	}
}

// join adds parts to a path, each escaped as one segment: url "/webhooks" .ID "edit".
func join(path string, parts []any) string {
	for _, part := range parts {
		path = strings.TrimSuffix(path, "/") + "/" + url.PathEscape(fmt.Sprint(part))
	}
	return path
}

// ago shows when something was, or will be: as distance for people, as time for machines and in the title.
func ago(value any, now time.Time) template.HTML {
	t, ok := instant(value)
	if !ok {
		return template.HTML(template.HTMLEscapeString(text("value.none")))
	}
	t = t.UTC()
	// Nothing in it is foreign: both are times that we format.
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s" data-ago>%s</time>`,
		t.Format(time.RFC3339), t.Format("2006-01-02 15:04:05 MST"), distance(now.Sub(t))))
}

// distance is coarse, so that live regions need not be sent again each second.
func distance(d time.Duration) string {
	switch {
	case d < -time.Minute:
		return text("time.in", coarse(-d))
	case d < 0:
		return text("time.soon")
	case d < time.Minute:
		return text("time.now")
	}
	return text("time.ago", coarse(d))
}

func coarse(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// stamp is a time with its date, in UTC.
func stamp(value any) string {
	t, ok := instant(value)
	if !ok {
		return text("value.none")
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// instant finds a time in a time.Time or a pointer to one; the zero time is none.
func instant(value any) (time.Time, bool) {
	switch t := value.(type) {
	case time.Time:
		return t, !t.IsZero()
	case *time.Time:
		if t != nil {
			return *t, !t.IsZero()
		}
	}
	return time.Time{}, false
}

// float finds a number in whatever number or pointer to one it gets.
func float(value any) (float64, bool) {
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer {
		v = v.Elem() // of nil: the zero Value
	}
	switch {
	case !v.IsValid():
		return 0, false
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), !math.IsNaN(v.Float()) && !math.IsInf(v.Float(), 0)
	}
	return 0, false
}

// formatted writes a number down, or shows that there is none.
func formatted(value any, format func(float64) string) string {
	f, ok := float(value)
	if !ok {
		return text("value.none")
	}
	return format(f)
}

// sizeOf shows bytes in decimal units: 12.3 MB.
func sizeOf(value any) string {
	return formatted(value, func(f float64) string {
		units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
		i := 0
		for math.Abs(f) >= 999.95 && i < len(units)-1 {
			f, i = f/1000, i+1
		}
		if i == 0 {
			return fmt.Sprintf("%.0f B", f)
		}
		return fmt.Sprintf("%.1f %s", f, units[i])
	})
}

// number groups digits: 1,234,567. Fractions have up to two digits.
func number(value any) string {
	return formatted(value, func(f float64) string {
		text := strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64)
		digits, fraction, _ := strings.Cut(strings.TrimPrefix(text, "-"), ".")
		var b strings.Builder
		if strings.HasPrefix(text, "-") {
			b.WriteByte('-')
		}
		for i, d := range digits {
			if i > 0 && (len(digits)-i)%3 == 0 {
				b.WriteByte(',')
			}
			b.WriteRune(d)
		}
		if fraction != "" {
			b.WriteString("." + fraction)
		}
		return b.String()
	})
}

// milliseconds shows a response time.
func milliseconds(value any) string {
	return formatted(value, func(f float64) string {
		switch {
		case f < 10:
			return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) + " ms"
		case f < 10_000:
			return number(math.Round(f)) + " ms"
		}
		return number(math.Round(f/100)/10) + " s"
	})
}

// percent shows a share from 0 to 1. What is not quite all never reads as 100 %.
func percent(value any) string {
	return formatted(value, func(f float64) string {
		p := math.Floor(f*1000) / 10
		return strconv.FormatFloat(p, 'f', -1, 64) + " %"
	})
}

// duration shows seconds as people say them: 3.2 s, 5 min, 3 h 20 min, 4 days.
func duration(value any) string {
	return formatted(value, func(f float64) string {
		d := time.Duration(min(f, 1e9) * float64(time.Second))
		switch {
		case d < 10*time.Second:
			return strconv.FormatFloat(math.Round(d.Seconds()*10)/10, 'f', -1, 64) + " s"
		case d < time.Minute:
			return fmt.Sprintf("%.0f s", math.Floor(d.Seconds()))
		case d < time.Hour:
			return fmt.Sprintf("%d min", int(d.Minutes()))
		case d < 48*time.Hour:
			if m := int(d.Minutes()) % 60; m != 0 {
				return fmt.Sprintf("%d h %d min", int(d.Hours()), m)
			}
			return fmt.Sprintf("%d h", int(d.Hours()))
		}
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	})
}

// pretty indents JSON, and leaves anything else as it is. Numbers stay as they were written.
func pretty(value any) string {
	var text string
	switch v := value.(type) {
	case string:
		text = v
	case *string:
		if v != nil {
			text = *v
		}
	case []byte:
		text = string(v)
	case json.RawMessage:
		text = string(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		text = string(b)
	}
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}

// short is the beginning of an id.
func short(id any) string {
	s := fmt.Sprint(id)
	if len(s) > 8 {
		return s[:8]
	}
	return s
}
