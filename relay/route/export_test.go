package route

// Footprint is how many buckets, cohorts and filters the table keeps: none when it is empty.
func (t *Table) Footprint() int { return len(t.buckets) + len(t.cohorts) + len(t.filters) }

// LongestList is how many different filters one event may have to be judged by, at most, because of one
// value of one field, or because of none.
func (t *Table) LongestList() int {
	longest := 0
	for _, b := range t.buckets {
		longest = max(longest, len(b.rest.cohorts))
		for _, f := range b.fields {
			for _, l := range f.lists {
				longest = max(longest, len(l.cohorts))
			}
		}
	}
	return longest
}
