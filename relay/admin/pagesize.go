package admin

import "github.com/jackc/pgx/v5"

// pageBytes is about how much text one page holds, however many items were asked for: 500 of the largest would be hundreds of
// megabytes, and answers to slow clients stay in memory. A page that is full by that is short and has a cursor.
const pageBytes = 4 << 20

// collectPage reads a page of at most limit items, and of about pageBytes, of rows that would be more. cursor encodes an
// item's sort keys.
func collectPage[T any](rows pgx.Rows, limit int, scan pgx.RowToFunc[T], size func(*T) int, cursor func(*T) string) (Page[T], error) {
	defer rows.Close()
	page := Page[T]{Items: []T{}} // JSON without null
	for total := 0; rows.Next(); {
		if len(page.Items) == limit || total >= pageBytes {
			page.Next = cursor(&page.Items[len(page.Items)-1])
			break
		}
		item, err := scan(rows)
		if err != nil {
			return Page[T]{}, err
		}
		page.Items = append(page.Items, item)
		total += size(&item)
	}
	rows.Close()
	return page, rows.Err()
}

// size is how much text a webhook has, in bytes.
func (w *Webhook) size() int {
	n := len(w.Description) + len(w.URL) + len(w.Filters)
	for _, name := range w.Events {
		n += len(name)
	}
	return n + sizeOf(w.Headers)
}

func (c *Call) size() int {
	n := len(c.URL) + len(c.Payload) + sizeOf(c.RequestHeaders)
	if c.ResponseBody != nil {
		n += len(*c.ResponseBody)
	}
	return n
}

func (t *EventType) size() int { return len(t.Description) + len(t.Schema) }

func sizeOf(headers map[string]string) (n int) {
	for name, value := range headers {
		n += len(name) + len(value)
	}
	return n
}
