pragma ComponentBehavior: Bound

// A piece for the bar: whether opsmesh is there, what became of the last click, and what waits for
// an answer, with its choices.
// Copy it, or use it as it is: `import qs.opsmesh`, then `Example { }`.

import QtQuick

Row {
    id: bar

    readonly property var last: OpsMesh.lastResult
    readonly property bool failed: last !== null && last.ok !== true

    function told(result) {
        if (result === null)
            return "opsmesh";
        if (result.ok !== true)
            return (result.run ? result.run + ": " : "") + (result.error || result.state);
        if (result.run)
            return result.run + ": " + (result.state || "started");
        return result.answer ? "answered " + result.answer : String(result.topic);
    }

    spacing: 8
    height: 28

    Rectangle {
        width: 10
        height: 10
        radius: 5
        anchors.verticalCenter: parent.verticalCenter
        color: OpsMesh.connected ? "#7fb069" : "#d1495b"
    }

    Text {
        anchors.verticalCenter: parent.verticalCenter
        width: Math.min(implicitWidth, 240)
        elide: Text.ElideRight
        textFormat: Text.PlainText
        color: OpsMesh.connected && bar.failed ? "#d1495b" : "#e6e6e6"
        text: OpsMesh.connected ? bar.told(bar.last) : "opsmesh is away"
    }

    Repeater {
        model: OpsMesh.pendingApprovals

        Row {
            id: one

            required property var modelData

            spacing: 6
            anchors.verticalCenter: parent.verticalCenter

            Text {
                anchors.verticalCenter: parent.verticalCenter
                color: "#edae49"
                text: one.modelData.prompt
                textFormat: Text.PlainText
            }

            Repeater {
                // a button gives no value: `opsmesh approve` does
                model: one.modelData.schema ? one.modelData.choices.filter(choice => choice !== "approve") : one.modelData.choices

                Rectangle {
                    id: button

                    required property string modelData

                    width: label.width + 16
                    height: 22
                    radius: 4
                    color: area.containsMouse ? "#4a5568" : "#2d3748"

                    Text {
                        id: label

                        anchors.centerIn: parent
                        color: "#e6e6e6"
                        text: button.modelData
                        textFormat: Text.PlainText
                    }

                    MouseArea {
                        id: area

                        anchors.fill: parent
                        hoverEnabled: true
                        onClicked: OpsMesh.answer(one.modelData.id, button.modelData, "")
                    }
                }
            }
        }
    }
}
