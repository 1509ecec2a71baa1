"""Chat templates, read by Jinja's own parser and then walked node by node: nothing of them is ever run as Python.

In: a template and plain data. Out: text. `limits` counts what rendering costs, `traced` keeps apart whose words are
whose, `values` says what the data can be asked, `filters` and `checks` hold the named operations, `expressions` and
`statements` walk the tree.
"""
