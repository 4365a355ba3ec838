service "one" {
  port = = 1
}

service "two" {
  tags = ["a" "b"]
}

service "three" {
  port = 3
  port = 33
}

Action = allow

service "four" {
  tags = [
}

service "five" {
  meta = { a = 1, a = 2 }
}

service 'six' {
}

service "seven" {
  address = "127.0.0.1
}

service "eight" {
  bad_key = 8
}
}

service "nine" {
  port = 9
