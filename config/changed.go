package config

import "reflect"

// Changed names the settings in which two configurations differ, in the order of Config. It compares what is there, not
// what is shown: another password counts.
func Changed(before, after Config) []string {
	var names []string
	for _, k := range keys {
		was, is := reflect.ValueOf(before).FieldByIndex(k.field), reflect.ValueOf(after).FieldByIndex(k.field)
		if !same(was, is) {
			names = append(names, k.Name)
		}
	}
	return names
}

// same compares two settings. An empty list and none are the same.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
