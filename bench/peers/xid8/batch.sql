SELECT append($1, $2, $3)
