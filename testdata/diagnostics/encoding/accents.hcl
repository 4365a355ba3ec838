service "é" {}
auth_group "a" { description = "ééé" prot = 1 }
