"""logind and hypridle: the session is locked and unlocked, the machine sleeps and wakes.

locks      what several sources say together: one event a lock, as pure functions of their words
bus        the system bus: whose sessions there are, their hints, and signals that can be believed
inbox      the folder that hypridle's commands leave their word in
conf       what the user's hypridle.conf does already, so that nothing of it is lost
wiring     hypridle's half, for `opsmesh install hypridle`
producer   the loop: hear, merge, emit, then remember
"""

from opsmesh.producers.logind.producer import Logind as Logind
