"""The most common leaked passwords with at least eight characters."""

_LIST = """
00000000 01234567 0123456789 0987654321 10203040 11111111 1111111111 11112222 11223344 12121212
1212121212 123123123 1231231234 12341234 123412345 12344321 12345678 123456789 1234567890
1234567891 12345678910 123456789a 123456789q 12345678a 123456abc 1234qwer 123qweasd 123qweasdzxc
12qwaszx 13131313 147258369 14789632 1q2w3e4r 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx 1qaz2wsx3edc
1qazxsw2 20202020 21212121 22222222 232323232 23456789 33333333 44444444 55555555 66666666
69696969 741852963 77777777 78945612 789456123 87654321 88888888 963852741 98765432 987654321
9876543210 99999999 999999999 a12345678 a123456789 a1b2c3d4 a1s2d3f4 aa123456 aa12345678 abc12345
abc123456 abcd1234 abcdefgh abcdefghi access14 admin123 admin1234 admin12345 adminadmin
administrator alexander alexandra asdasdasd asdf1234 asdfasdf asdfghjk asdfghjkl babygirl baseball
baseball1 basketball beautiful benjamin bismillah blink182 butterfly caroline changeme changeme1
changeme123 charlie1 charlotte chelsea1 chocolate christian christopher cocacola computer
computer1 consumer corvette courtney creative december default1 dolphins dragon123 einstein
elephant elizabeth facebook fairview football football1 forever1 freedom1 garfield gfhjkm123
godzilla goodluck google123 hardcore hello123 hellohello helloworld hospital iloveyou iloveyou1
iloveyou2 informatica internet isabella jennifer jessica1 jonathan jordan23 juventus letmein1
letmein123 linkedin liverpool liverpool1 lovelove lovely123 loveyou1 manchester marlboro master123
matthew1 maverick mercedes metallica michael1 michelle midnight minecraft monkey123 mustang1
myspace1 ncc1701d newyork1 nicholas nintendo nothing1 november p@ssw0rd p@ssword pa$$w0rd pa55word
parola123 pass1234 passw0rd passw0rd1 password password! password. password0 password1 password12
password123 password1234 password2 password3 passwort passwort1 patricia platinum playstation
pokemon1 poohbear porsche911 precious princess princess1 q1w2e3r4 q1w2e3r4t5 q1w2e3r4t5y6
qazwsx123 qazwsxedc qq123456 qqww1122 quertyui qwaszx12 qwer1234 qwerqwer qwerty12 qwerty123
qwerty1234 qwerty12345 qwerty123456 qwerty78 qwertyqwerty qwertyu1 qwertyui qwertyuio qwertyuiop
rainbow1 rockstar samantha samsung1 scorpion security september shadow123 slipknot snickers
snowball soccer12 softball spiderman spongebob srinivas starcraft starwars starwars1 steelers
stephanie summer123 sunshine sunshine1 superman superman1 superstar swordfish sysadmin target123
test1234 test12345 testtest thomas123 tinkerbell tollgate tollgate1 tollgate123 trustno1
undertaker unknown1 user1234 valentina valentine vanessa1 victoria vladimir volleyball warcraft
warriors webmaster welcome1 welcome12 welcome123 westside whatever whatever1 william1 winston1
winter123 wordpass xbox360live yankees1 yugioh123 zaq12wsx zaq1xsw2 zaq1zaq1 zxcvbnm1 zxcvbnm123
zxcvbnmz zzzzzzzz
"""

COMMON_PASSWORDS = frozenset(_LIST.split())
